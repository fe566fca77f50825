"""`geed-onnx list`."""

from __future__ import annotations

import json

import click

from geed_onnx.cli.options import one_of

TOPICS = ("groups", "variants", "distances", "actions", "normalisers", "sources", "sessions", "providers")


def entries(topic: str) -> list[tuple[str, str]]:
    """Return (name, one line) of everything under a topic."""
    if topic == "groups":
        from geed_onnx.groups import groups

        return [(n, f"{f.about} (as in {', '.join(f.examples)})") for n, f in groups.items()] + [
            ("<G>x<H>", "direct product of two that commute (as in flipxflip-ud)")
        ]
    if topic == "variants":
        from geed_onnx.variants import variants

        return [(n, f"{v.kind}: {v.about}") for n, v in variants.items()] + [
            ("KIND:ACTION:DISTANCE[:NORMALISER]", "the general form (as in map:pixels:relative-l2)")
        ]
    if topic == "distances":
        from geed_onnx.distances import distances

        return [(n, f"{d.about}; optimum {d.optimum:g}; for {', '.join(d.kinds)}") for n, d in distances.items()]
    if topic == "actions":
        from geed_onnx.actions import actions

        return [(n, " ".join((f.__doc__ or "").split("\n")[0].split())) for n, f in actions.items()]
    if topic == "normalisers":
        from geed_onnx.estimators import normalisers

        return [(n, v.about) for n, v in normalisers.items()]
    if topic == "sources":
        from geed_onnx.sources import sources

        return [(n, f.example) for n, f in sources.items()]
    if topic == "sessions":
        from geed_onnx.sessions import sessions

        return list(sessions.items())
    from geed_onnx.sessions import available_providers

    return [(p, "") for p in ("auto", *available_providers())]


@click.command("list")
@click.argument("topic", callback=one_of(*TOPICS), metavar="TOPIC")
@click.option("--json", "as_json", is_flag=True, help="One entry a line as JSON.")
def list_(topic: str, as_json: bool) -> None:
    """List what can be named: groups, variants, distances, …

    TOPIC is groups, variants, distances, actions, normalisers, sources, sessions or providers.

    \b
    geed-onnx list groups
    """
    found = entries(topic)
    width = max((len(name) for name, _ in found), default=0)
    for name, about in found:
        click.echo(
            json.dumps({"name": name, "about": about}, ensure_ascii=False)
            if as_json
            else f"{name:{width}}  {about}".rstrip()
        )
