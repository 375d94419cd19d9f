"""Show results in the browser, or as recordings for the Rerun viewer."""
