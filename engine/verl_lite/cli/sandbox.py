"""`verl-lite sandbox serve`: run programs for other machines, over HTTP."""

from typing import Annotated

import typer

sandbox_app = typer.Typer(help="Run programs in isolation, for others.", no_args_is_help=True)


@sandbox_app.callback()
def sandbox() -> None:
    """Run programs in isolation, for others."""


@sandbox_app.command()
def serve(
    token: Annotated[str, typer.Option(envvar="VERL_LITE_SANDBOX_TOKEN", help="What clients must send")],
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="Port; 0 takes a free one")] = 8090,
    workers: Annotated[int | None, typer.Option(min=1, help="Programs at once; default: a core each")] = None,
    libraries: Annotated[list[str] | None, typer.Option(help="Packages to import before any program")] = None,
    max_wall_s: Annotated[float, typer.Option(help="The most that a client may ask for")] = 60.0,
    max_memory_mb: Annotated[int, typer.Option(help="The most that a client may ask for")] = 4096,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that run or wait; more get 503")] = 512,
) -> None:
    """Run programs for clients with `backend: verl+http://HOST:PORT`, until it is interrupted.

    Example: VERL_LITE_SANDBOX_TOKEN=... verl-lite sandbox serve --host 0.0.0.0
    """
    from verl_lite.sandbox import Limits, Sandbox, serve_sandbox

    most = Limits(
        wall_s=max_wall_s,
        cpu_s=4 * max_wall_s,
        memory_mb=max_memory_mb,
        processes=256,
        file_size_mb=256,
        output_kb=16_384,
        open_files=1024,
        disk_mb=1024,
        compile_wall_s=120.0,
        compile_memory_mb=4096,
    )
    with Sandbox(workers=workers, libraries=libraries or ()) as sandbox:
        server = serve_sandbox(sandbox, host=host, port=port, token=token, most=most, max_waiting=max_waiting)
        typer.echo(f"serving {sandbox.backend} at verl+http://{host}:{server.server_address[1]}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.server_close()
