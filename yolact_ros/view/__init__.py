"""Looking at results: a page in the browser, and recordings for the Rerun viewer."""
