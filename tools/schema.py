"""Write ``configs/schema.json``, with which editors complete and check training configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from paragonsr2.files import write_atomic
from paragonsr2.training.config import TrainConfig

PATH = Path(__file__).parent.parent / "configs" / "schema.json"


class TomlSchema(GenerateJsonSchema):
    """JSON Schema without null, which TOML does not have: a setting that is off is omitted."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """The schema of a value that may be None is the schema of the value."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a key with a default; the default is omitted if it is None."""
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        """The default of a section lists only the settings that are on."""
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", exclude_none=True)
        return super().encode_default(dft)


def schema_text() -> str:
    """The content of the schema file."""
    schema = TrainConfig.model_json_schema(schema_generator=TomlSchema)
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    write_atomic(PATH, schema_text().encode())
    print(PATH)
