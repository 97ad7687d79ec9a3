"""The Metal plugins: what each can do, and how handlers are registered. Knows no lowering rule."""
