"""Whether a certificate still holds, and whether training again gives the same weights."""
