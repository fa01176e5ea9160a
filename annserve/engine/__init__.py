"""A request's recipe: query vectors, candidates, order, provenance."""
