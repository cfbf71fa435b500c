"""Accounts, groups, grants and keys."""
