"""Questions of our own, with boxes, about the photographs that scikit-image ships."""
