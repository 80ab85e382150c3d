"""A fake world, seeded, with ground truth: services that call each other, and what goes wrong with them."""
