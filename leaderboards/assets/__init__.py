"""HTML, CSS and JavaScript of the site."""
