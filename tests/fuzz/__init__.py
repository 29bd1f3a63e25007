"""Files of every kind that jdet reads, spoilt at random: each is read, or refused in words."""
