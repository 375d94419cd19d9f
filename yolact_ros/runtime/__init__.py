"""All that a robot needs: bundle, preprocessing, post-processing, masks, drawing; no torch."""
