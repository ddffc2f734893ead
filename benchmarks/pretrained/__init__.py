"""Networks with published weights, compressed on a few hundred unlabelled images of another kind."""
