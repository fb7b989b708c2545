"""AMQP's topic rules (AMQP 0-9-1, 3.1.3.3): which routing keys a binding's pattern wants."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a routing key fits a pattern.

    Both are words between dots. In the pattern `*` stands for exactly one word and `#` for any number of words, none
    included. An empty key has no word at all, as RabbitMQ counts.
    """
    return _match(_words(pattern), _words(routing_key))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    # reached[i]: the words so far fit the first i words of the pattern.
    reached = [True]
    for part in pattern:
        reached.append(reached[-1] and part == "#")
    for word in words:
        before, reached = reached, [False]
        for number, part in enumerate(pattern, start=1):
            if part == "#":
                reached.append(reached[-1] or before[number])
            else:
                reached.append(before[number - 1] and part in ("*", word))
    return reached[-1]
