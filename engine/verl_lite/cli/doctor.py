"""`verl-lite doctor`: versions and isolation on this machine, or whether a cluster's nodes fit together."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.versions import installed_versions, untested
from verl_lite.errors import ConfigError

GIB = 2**30


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="Check the nodes of a Ray cluster")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="With --cluster: auto or host:port, like cluster.address; default: a local Ray"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="With --cluster: the folder that must be shared")] = Path("runs"),
) -> None:
    """Show this machine's versions and the sandbox's layers of isolation, or check a cluster's nodes.

    Exit code 1 when programs cannot be isolated, or when the nodes cannot be used together.

    Example: verl-lite doctor --cluster --address auto
    """
    if address is not None and not cluster:
        raise ConfigError(f"--address {address} belongs to --cluster: add that option")
    if cluster:
        _look_at_cluster(address, runs, as_json=as_json)
        return
    from verl_lite.sandbox import State, probe

    versions = {"python": platform.python_version(), "kernel": platform.release(), **installed_versions()}
    layers = probe()
    can_isolate = any(layer.name == "python backend" and layer.state is State.ACTIVE for layer in layers)
    if as_json:
        from verl_lite.cli.terminal import print_json

        rows = [{"name": row.name, "state": row.state, "detail": row.detail} for row in layers]
        print_json({"versions": versions, "can_isolate": can_isolate, "layers": rows})
    else:
        _print_tables(versions, [(row.name, row.state.value, row.detail) for row in layers])
        typer.echo("programs can be isolated here" if can_isolate else "programs can NOT be isolated here")
    if not can_isolate:
        raise typer.Exit(1)


def _look_at_cluster(address: str | None, runs: Path, *, as_json: bool) -> None:
    from verl_lite.engine.cluster import RayRuntime, inspect_cluster
    from verl_lite.engine.config import ClusterConfig

    with RayRuntime(ClusterConfig(address=address), cpus=1) as session:
        report = inspect_cluster(session.ray, runs)
    if as_json:
        from verl_lite.cli.terminal import print_json

        print_json(asdict(report))
    else:
        for node in report.nodes:
            typer.echo(
                f"{node.name}: {node.cpus:g} CPUs, {node.memory_bytes / GIB:.1f} GiB memory, "
                f"{node.object_store_bytes / GIB:.1f} GiB object store, "
                f"{', '.join(f'{name} ({size / GIB:.0f} GiB)' for name, size in node.gpus) or 'no GPU'}"
            )
            if node.round_trip_s is not None:
                folder = "seen" if node.sees_folder else "NOT seen"
                typer.echo(f"  a MiB there and back {node.round_trip_s * 1e3:.1f} ms; {runs}/ {folder}")
                shown = (f"{name} {version}" for name, version in node.versions.items() if version)
                typer.echo(f"  {', '.join(shown)}")
        for problem in report.problems:
            typer.echo(f"problem: {problem}")
        typer.echo(
            f"{len(report.nodes)} node{'s' if len(report.nodes) > 1 else ''}, "
            + ("which can NOT be used together" if report.problems else "fine together")
        )
    if report.problems:
        raise typer.Exit(1)


def _print_tables(versions: dict[str, str | None], layers: list[tuple[str, str, str]]) -> None:
    from verl_lite.cli.terminal import print_rows

    print_rows([[name, version or "not installed"] for name, version in versions.items()])
    for line in untested(versions):
        typer.echo(f"note: {line}")
    typer.echo("")
    print_rows(layers)
