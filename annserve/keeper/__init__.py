"""The instance's background work: reading the leaves of filters, and keeping them true as the catalogue changes."""
