"""What `make images` and `make images-check` do: find an engine, build the images of the services, try them."""
