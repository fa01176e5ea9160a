"""What orders a placement's candidates, a module for each kind of rule; `engine.arrangement` puts them together."""
