"""Chores beside delivery: bounds kept, the file watched, old blocks looked through."""
