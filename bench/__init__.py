"""`make bench`: what the product costs, as ratios against floors that are measured in the same run."""
