"""Reading why RabbitMQ refuses a declaration: what stands on the broker, what is wanted, and what to do.

The broker closes the channel with a text such as `PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue
'a' in vhost '/': received the value '20' of type 'signedint' but current is the value '7' of type 'signedint'`
(rabbit_misc:assert_args_equivalence, the same from 3.8 to 4.x). A text of another kind is given as it is.
"""

from __future__ import annotations

import re

_TEXT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>queue|exchange) '(?P<name>[^']*)' "
    r"in vhost '(?P<vhost>[^']*)': received (?P<wanted>.+?) but current is (?P<stands>.+)$"
)
_VALUE = re.compile(r"^(?:the value )?'(?P<value>[^']*)'(?: of type .*)?$")


def mismatch(what: str, reason: str) -> str:
    """Give one line: the queue or exchange, its argument, what stands and what is wanted, and the next step.

    Parameters
    ----------
    what
        What was declared, in case that the text does not say so: `queue mesh.series-segmented`.
    reason
        The broker's own text.
    """
    reason = " ".join(reason.split())
    found = _TEXT.search(reason)
    if found is None:
        return f"{what} exists in another form ({reason}); delete it and start again"
    name, vhost = found["name"], found["vhost"]
    if found["kind"] == "queue":
        step = f"when it is empty, delete it (rabbitmqctl delete_queue --vhost {vhost} {name}) and start again"
    else:
        step = "delete it (in the management interface, or with rabbitmqadmin) and start again"
    return (
        f"{found['kind']} {name} in vhost {vhost}: {found['argument']} is {_value(found['stands'])} there and must be "
        f"{_value(found['wanted'])}; {step}: it is declared anew"
    )


def _value(text: str) -> str:
    found = _VALUE.match(text)
    return (found["value"] if found else text) or "empty"
