"""What came of the answers that were shown: events joined, counted by groups of users, and judged with intervals."""
