"""What comes in: bodies, forms and files, read within limits and refused in words."""
