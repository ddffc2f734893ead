"""Which tensor indices can only be removed together."""
