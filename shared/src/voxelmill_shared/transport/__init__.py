"""Carrying messages: RabbitMQ, or one SQLite file."""
