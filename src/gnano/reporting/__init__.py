"""Reports for people: the status, metrics, plots, page, description and cost of runs."""
