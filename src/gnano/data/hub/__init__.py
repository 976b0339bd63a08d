"""The Hugging Face Hub: what a data set holds, may we read it, and the files on this disk."""
