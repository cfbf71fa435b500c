"""What whoever operates the server needs: health, checks."""
