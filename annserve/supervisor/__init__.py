"""The parent of an instance's processes: starts, watches, replaces and drains them. It holds no data of its own."""
