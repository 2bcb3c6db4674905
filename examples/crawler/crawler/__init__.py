"""A distributed crawler: Masters of which one leads, and Workers that crawl what it assigns."""
