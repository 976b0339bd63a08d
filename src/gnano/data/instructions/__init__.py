"""Instructions and answers: records -> conversations -> ids with what is learned -> packed rows."""
