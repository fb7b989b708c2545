"""The contract of leases, held by SQLite and by PostgreSQL (a real server)."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from contract.database_kit import METADATA, NOW, TIMERS, run_program
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.lease import claim_due, held_by

if TYPE_CHECKING:
    import subprocess

    from sqlalchemy.ext.asyncio import AsyncEngine


def timer(name: str, due: timedelta, part: int = 0) -> dict[str, object]:
    return {"name": name, "part": part, "due_at": NOW + due}


async def claim(engine: AsyncEngine, owner: str, now: datetime = NOW, limit: int = 10) -> list[str]:
    async with transaction(engine) as connection:
        rows = await claim_due(connection, TIMERS, now=now, lease=timedelta(seconds=60), owner=owner, limit=limit)
    assert all(row.leased_by == owner for row in rows)
    return [row.name for row in rows]


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


class TestLeases:
    async def test_due_rows_are_claimed_longest_due_first(self, engine: AsyncEngine) -> None:
        """What is not due, or never will be, stays; no more than asked for are taken."""
        async with transaction(engine) as connection:
            rows = [
                timer("c", timedelta(0)),
                timer("a", timedelta(-2)),
                timer("b", timedelta(-1)),
                timer("later", timedelta(1)),
            ]
            await connection.execute(insert(TIMERS), [*rows, timer("never", timedelta(0)) | {"due_at": None}])
        assert await claim(engine, "one", limit=2) == ["a", "b"]
        assert await claim(engine, "two") == ["c"]
        assert await claim(engine, "three") == []

    async def test_lease_that_ran_out_may_be_claimed_by_another(self, engine: AsyncEngine) -> None:
        """A holder that died holds nothing up, and one that was only slow finds that it holds nothing any more."""
        async with transaction(engine) as connection:
            await connection.execute(insert(TIMERS), [timer("a", timedelta(0))])
        assert await claim(engine, "one") == ["a"]
        assert await claim(engine, "two", NOW + timedelta(seconds=59)) == []
        assert await claim(engine, "two", NOW + timedelta(seconds=60)) == ["a"]
        later = NOW + timedelta(seconds=61)
        async with transaction(engine) as connection:
            for owner, settled in (("one", 0), ("two", 1)):
                gone = await connection.execute(TIMERS.delete().where(held_by(TIMERS, owner=owner, now=later)))
                assert gone.rowcount == settled

    async def test_two_claimers_at_once_never_get_the_same_row(self, url: str, engine: AsyncEngine) -> None:
        """Many rows, several claimers with engines of their own: every row is claimed, once."""
        names = {f"timer-{number}" for number in range(60)}
        async with transaction(engine) as connection:
            await connection.execute(insert(TIMERS), [timer(name, timedelta(0), 1) for name in sorted(names)])

        async def claim_all(owner: str) -> list[str]:
            mine = open_database(url)
            claimed: list[str] = []
            while some := await claim(mine, owner, limit=3):
                claimed += some
            await mine.dispose()
            return claimed

        shares = await asyncio.gather(*(claim_all(f"owner-{number}") for number in range(4)))
        assert sorted(name for share in shares for name in share) == sorted(names)

    async def test_two_processes_that_claim_at_once(self, url: str, engine: AsyncEngine) -> None:
        """Every row is claimed by one of them, once; what a killed one held is claimed when its lease has run out."""
        names = {f"timer-{number:03}" for number in range(80)}
        async with transaction(engine) as connection:
            await connection.execute(insert(TIMERS), [timer(name, timedelta(0)) for name in sorted(names)])
        program = """
        import asyncio, sys
        from datetime import datetime, timedelta
        sys.path.insert(0, sys.argv[1])
        from contract.database_kit import NOW, TIMERS
        from voxelmill_shared.database import open_database, transaction
        from voxelmill_shared.lease import claim_due

        async def main():
            engine = open_database(sys.argv[2])
            print("ready", flush=True)
            while sys.stdin.readline():
                async with transaction(engine) as connection:
                    lease = timedelta(seconds=60)
                    rows = await claim_due(connection, TIMERS, now=NOW, lease=lease, owner=sys.argv[3], limit=4)
                print(*(row.name for row in rows), flush=True)

        asyncio.run(main())
        """
        tests = str(Path(__file__).parents[1])
        claimers = [run_program(program, tests, url, owner) for owner in ("one", "two")]
        claimed: list[str] = []
        try:
            for claimer in claimers:
                assert await asyncio.to_thread(read_line, claimer) == "ready"
            while True:
                for claimer in claimers:
                    write_line(claimer)
                round_ = [
                    name for claimer in claimers for name in (await asyncio.to_thread(read_line, claimer)).split()
                ]
                if not round_:
                    break
                claimed += round_
        finally:
            for claimer in claimers:
                claimer.kill()
                claimer.communicate()
        assert len(claimed) == len(names)
        assert set(claimed) == names
        later = NOW + timedelta(seconds=61)
        assert sorted(await claim(engine, "three", later, limit=200)) == sorted(names)

    @pytest.mark.postgresql
    async def test_claimer_steps_over_rows_that_another_is_claiming(self, database: str) -> None:
        """On PostgreSQL nobody waits for the transaction of another claimer."""
        engine = open_database(database)
        async with transaction(engine) as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(insert(TIMERS), [timer("a", timedelta(-1)), timer("b", timedelta(0))])
        async with transaction(engine) as slow:
            lease = timedelta(seconds=60)
            assert len(await claim_due(slow, TIMERS, now=NOW, lease=lease, owner="slow", limit=1)) == 1
            async with asyncio.timeout(5):
                assert await claim(engine, "quick") == ["b"]
        await engine.dispose()
