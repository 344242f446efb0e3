"""The story: fetch, assess, publish."""
