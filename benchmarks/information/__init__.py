"""Times of the information core beside NumPy, scikit-learn and other estimators."""
