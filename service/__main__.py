"""`python -m service …` is `plumbline …`."""

from service.cli import app

if __name__ == "__main__":
    app(prog_name="plumbline")
