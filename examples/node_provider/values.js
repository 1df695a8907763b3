// google.protobuf.Struct and Value as plain JavaScript values, and back. proto-loader gives them as the messages they are.

export function fromStruct(struct) {
  return Object.fromEntries(
    Object.entries(struct?.fields ?? {}).map(([name, value]) => [name, fromValue(value)]),
  );
}

function fromValue(value) {
  switch (value.kind) {
    case "structValue":
      return fromStruct(value.structValue);
    case "listValue":
      return value.listValue.values.map(fromValue);
    case "nullValue":
      return null;
    default:
      return value[value.kind];
  }
}

export function toValue(value) {
  if (value === null || value === undefined) return { nullValue: 0 };
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };

  switch (typeof value) {
    case "boolean":
      return { boolValue: value };
    case "number":
      return { numberValue: value };
    case "string":
      return { stringValue: value };
    default:
      return {
        structValue: {
          fields: Object.fromEntries(Object.entries(value).map(([name, one]) => [name, toValue(one)])),
        },
      };
  }
}
