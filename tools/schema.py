"""Write configs/schema.json, from which editors complete and check training configurations."""

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
    """JSON Schema without null, which TOML does not have: a key that is off is left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Of a value that may be None: that of the value."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Of a key with a default: the default is told unless it is None."""
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        """What stands as the default: of a section, only what is on."""
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", exclude_none=True)
        return super().encode_default(dft)


def schema_text() -> str:
    """The schema as it stands in the file."""
    schema = TrainConfig.model_json_schema(schema_generator=TomlSchema)
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    write_atomic(PATH, schema_text().encode())
    print(PATH)
