"""Following a placement's recipe: what it asks, what rules make of the candidates, who fills what is short."""
