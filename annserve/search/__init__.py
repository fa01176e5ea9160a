"""Finding the best items for a query: HNSW graphs, exact search, and the planner that chooses between them."""
