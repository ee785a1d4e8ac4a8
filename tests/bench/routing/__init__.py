"""`make bench-routing`: the shipped decisions and estimators over recorded outcomes of models."""
