"""The real servers and every service on one machine, without containers: what `make up` and `make down` do.

The tests start the same servers by the same descriptions (`rabbitmq`, `seaweedfs`, `postgresql`).
"""
