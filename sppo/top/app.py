"""The screen: what `sppo.top.text` says, once a second, and keys.

Everything shown is in the run directory, so it works beside `up`, in another terminal, over SSH,
and on a run that has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.geometry import Size
from textual.widgets import Input, Static

from sppo import asked
from sppo.errors import ConfigError
from sppo.launch import asking, scaling
from sppo.top import text
from sppo.top.state import Run

LOOK_S = 1.0
SAID_S = 10.0
"""For which an answer stands where the keys are named."""
KEYS = "p pause/resume  c checkpoint  e evaluate  s scale  ? help  q quit"
HELP = """p  no batch is taken after the one at hand; once more: the run goes on
c  a checkpoint after the batch at hand
e  the held-out questions after the batch at hand
s  another number of generators or scorers: generators=3 scorers=2
q  leave; the run goes on

busy: share of the last 15 s with work in hand; of the learner, of its last
10 steps, the time in which it did not wait for groups."""
SECTIONS = ("header", "roles", "buffer", "curves", "told", "sample")


class Top(App[None]):
    """One run."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = ""
    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; }
    Static { height: auto; background: ansi_default; text-wrap: nowrap; }
    #sample { height: 1fr; }
    #foot { dock: bottom; height: 1; }
    #help { display: none; }
    Input { dock: bottom; height: 1; border: none; padding: 0; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "quit"), ("p", "pause", "pause"), ("c", "ask('checkpoint')", "checkpoint"),
        ("e", "ask('evaluate')", "evaluate"), ("s", "scale", "scale"),
        ("question_mark", "help", "help"), ("escape", "leave", "leave"),
    ]  # fmt: skip

    def __init__(self, run_dir: Path) -> None:
        """Raises ConfigError where there is no run."""
        super().__init__(ansi_color=True)
        self._run = Run(run_dir)
        self._said, self._said_at = "", 0.0
        self._scaled = ""
        """The newest request of ours to scale."""
        self._shown: dict[str, Text] = {}

    def compose(self) -> ComposeResult:
        """One text below the other."""
        with Vertical():
            for name in SECTIONS:
                yield Static(id=name, markup=False)
            yield Static(HELP, id="help", markup=False)
        yield Static(id="foot", markup=False)
        yield Input(placeholder="generators=2 scorers=1", id="scale", compact=True)

    def on_mount(self) -> None:
        """Look at once, and then each second."""
        self._look()
        self.set_interval(LOOK_S, self._look)

    def on_resize(self, event: Resize) -> None:
        """Lay it out anew. textual calls this before `self.size` is the new one."""
        self._draw(event.size)

    def action_pause(self) -> None:
        """Pause, or go on."""
        paused = asked.PAUSE in asked.standing(self._run.run_dir)
        self.action_ask(asking.RESUME if paused else asked.PAUSE)

    def action_ask(self, what: str) -> None:
        """Leave a wish for the learner."""
        self._try(lambda: asking.request(self._run.run_dir, what))

    def action_scale(self) -> None:
        """Ask how many."""
        field = self.query_one(Input)
        field.display = True
        field.focus()

    def action_help(self) -> None:
        """Show or hide what the keys do."""
        self.query_one("#help").display = not self.query_one("#help").display
        self.query_one("#sample").display = not self.query_one("#help").display

    def action_leave(self) -> None:
        """Leave the field, or the help."""
        self.query_one(Input).display = False
        self.set_focus(None)
        if self.query_one("#help").display:
            self.action_help()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Scale as `sppo-cli scale` does."""
        wanted = event.value.split()
        event.input.clear()
        self.action_leave()
        if wanted:
            self._try(lambda: self._scale(wanted))

    def _scale(self, wanted: list[str]) -> str:
        self._scaled = scaling.request(self._run.run_dir, scaling.parse(wanted))
        return f"asked for {' '.join(wanted)}"

    def _try(self, ask: Callable[[], str]) -> None:
        try:
            self._said = ask()
        except (ConfigError, OSError) as error:
            self._said = str(error).removeprefix(f"{self._run.run_dir}: ")
        self._said_at = time.monotonic()
        self._look()

    def _look(self) -> None:
        self._run.look()
        answer = self._run.status.get("scale") or {}
        refused = answer.get("refused") if answer.get("id") == self._scaled else ""
        if refused and self._said.startswith("asked for"):
            self._said, self._said_at = f"refused: {refused}", time.monotonic()
        if time.monotonic() - self._said_at > SAID_S:
            self._said = ""
        self._draw(self.size)

    def _draw(self, size: Size) -> None:
        """Only what has changed is drawn."""
        run, width = self._run, size.width
        for name in SECTIONS[:-1]:
            self._show(name, getattr(text, name)(run, width))
        above = sum(self._shown[name].plain.count("\n") + 1 for name in SECTIONS[:-1])
        self._show("sample", text.sample(run, width, max(1, size.height - above - 1)))
        foot = Text(self._said or KEYS, "bold" if self._said else "dim")
        foot.truncate(max(1, width), overflow="ellipsis")
        self._show("foot", foot)

    def _show(self, name: str, words: Text) -> None:
        if self._shown.get(name) != words:
            self._shown[name] = words
            self.query_one(f"#{name}", Static).update(words)
