"""What Alembic calls a script location: it holds `env.py`, which every service shares, and no migrations."""
