"""Put routes, parameters and schemas together into the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.limits import Limits
from gateway.openapi.composed import composed_operations
from gateway.openapi.schemas import Schema, Schemas, component_name, is_required, path_schema
from gateway.openapi.standards import SCIM, STANDARDS, Standard, standard_of
from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.paths import Template, parse_template
from gateway.transcoding.query import is_leaf
from gateway.transcoding.requests import etag_field, is_text
from gateway.wire import MULTIPART, SHORTEST_TIMEOUT, URLENCODED

QUERY_DEPTH = 3
LINES = "application/x-ndjson"
ABOUT = (
    "The customer-data middle office. A reply leaves out the fields that its caller may not see for the purpose stated "
    "and masks others: of those it promises neither `required` nor `pattern`."
)
STEP_UP = "Needs a second factor shown within five minutes; else 401 with the challenge of RFC 9470."
PROBLEM: Schema = {"$ref": "#/components/responses/Problem"}
PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "RFC 9457; `reason` is stable and listed at /docs/errors.",
    "required": ["type", "title", "status", "detail", "instance", "reason"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The request id, also in X-Request-Id."},
        "reason": {"type": "string"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def timeout_parameter(default: float, longest: float) -> Schema:
    """Return the parameter for the caller's own deadline."""
    return {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": f"Seconds until the caller gives up; {default:g} when absent.",
        "schema": {"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": longest},
    }


HEADER_PARAMETERS: dict[str, Schema] = {
    "Purpose": {
        "name": "X-Purpose",
        "in": "header",
        "description": "Why the data is used; decides which fields are shown, masked or hidden.",
        "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
    },
    "RequestTimeout": timeout_parameter(Limits().deadline, Limits().longest_deadline),
    "LinesTimeout": timeout_parameter(Limits().longest_deadline, Limits().longest_deadline),
    "UploadTimeout": timeout_parameter(Limits().upload_deadline, Limits().upload_deadline),
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A repeat of the key returns the first answer; the same as request_id.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag the change is meant for; another one is refused with 412.",
        "schema": {"type": "string", "pattern": '^("[!#-~]{1,62}"|[*])$'},
    },
}


def build_document(methods: Iterable[Method], comments: dict[str, str], server_url: str) -> Schema:
    """Return the OpenAPI 3.1 document of the methods' routes."""
    schemas = Schemas(comments)
    paths: dict[str, dict[str, Schema]] = {}
    tags: dict[str, str] = {}
    for method in methods:
        tags.setdefault(method.service, comments.get(method.full_name.rpartition(".")[0], ""))
        for index, binding in enumerate(method.bindings):
            template = parse_template(binding.template)
            item = paths.setdefault(path_of(template), {})
            item[binding.verb.lower()] = operation_of(schemas, method, binding, template, index)
    for (verb, text), operation in composed_operations(PROBLEM, refusal_of(STANDARDS[SCIM])).items():
        paths.setdefault(path_of(parse_template(text)), {})[verb] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kehu", "version": "1", "description": ABOUT},
        "servers": [{"url": server_url}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(schemas.components.items())), "Problem": PROBLEM_SCHEMA},
            "parameters": HEADER_PARAMETERS,
            "responses": {"Problem": problem_response()},
            "securitySchemes": {"token": security_scheme(server_url)},
        },
    }


def problem_response() -> Schema:
    """Return the response every refusal has."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": "Refused.", "content": {"application/problem+json": {"schema": schema}}}


def security_scheme(server_url: str) -> Schema:
    """Return how a token is obtained and sent."""
    token_url = f"{server_url}/oauth2/token"
    return {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": token_url, "scopes": {}}}}


def path_of(template: Template) -> str:
    """Return a template as OpenAPI writes paths: literals, and {name} for each variable segment."""
    out = list(template.segments)
    for segment, name in enumerate_names(template):
        out[segment] = f"{{{name}}}"
    return "/" + "/".join(out) + (f":{template.verb}" if template.verb else "")


def enumerate_names(template: Template) -> Iterator[tuple[int, str]]:
    """Yield each variable segment's place with a name for it: {name=profiles/*} is called profiles_id."""
    stars = [place for place, segment in enumerate(template.segments) if segment in ("*", "**")]
    for place in stars:
        owner = next((v for v in template.variables if v.start <= place < (v.stop or place + 1)), None)
        before = template.segments[place - 1]
        if owner is not None and owner.start == place:
            yield place, owner.field.replace(".", "_")
        else:
            yield place, f"{singular(before)}_id"


def segment_schema(request: Descriptor, template: Template, place: int) -> Schema:
    """Return what a segment of the path must look like, by the rules of the field it goes into."""
    owner = next((v for v in template.variables if v.start <= place < (v.stop or place + 1)), None)
    if owner is None:
        return path_schema(None, 0, 1)
    kind, field = request, None
    for part in owner.field.split("."):
        field = kind.fields_by_name[part]
        kind = field.message_type or kind
    return path_schema(field, place - owner.start, (owner.stop or len(template.segments)) - owner.start)


def singular(collection: str) -> str:
    """Return what one of a collection is called in a path parameter's name."""
    if collection.endswith("ies"):
        return f"{collection[:-3]}y"
    if collection.endswith(("shes", "ches", "xes", "sses")):
        return collection[:-2]
    return collection.removesuffix("s") if collection.isalpha() else "part"


def operation_of(schemas: Schemas, method: Method, binding: Binding, template: Template, index: int) -> Schema:
    """Return one operation."""
    comment = schemas.comments.get(method.full_name, "")
    if method.plan.step_up:
        comment = f"{comment} {STEP_UP}".strip()
    operation: Schema = {
        "operationId": component_name(method.full_name) + (f"-{index + 1}" if index else ""),
        "tags": [method.service],
        "summary": comment.split(". ")[0].rstrip("."),
        "description": comment,
        "parameters": parameters_of(schemas, method, binding, template),
        "responses": responses_of(schemas, method, binding),
    }
    if method.is_public:
        operation["security"] = []
    body = body_of(schemas, method, binding, template)
    if body is not None:
        operation["requestBody"] = body
    return operation


def responses_of(schemas: Schemas, method: Method, binding: Binding) -> Schema:
    """Return the responses of an operation: its own, and a problem or what a standard has in its place."""
    standard = standard_of(binding)
    if standard is None:
        return {"200": success(schemas, method), "default": PROBLEM}
    status = standard.success.get(binding.verb, "200")
    done: Schema = {"description": "Done."} if status == "204" else success(schemas, method)
    return {status: done, "default": refusal_of(standard)}


def refusal_of(standard: Standard) -> Schema:
    """Return the response that a refusal has where a standard says how."""
    refusal = problem_response()
    content = {**dict(refusal["content"]), standard.refusal_type: {"schema": standard.refusal}}  # type: ignore[call-overload]
    return {**refusal, "content": content}


def success(schemas: Schemas, method: Method) -> Schema:
    """Return the 200 response: JSON, lines of it, or bytes for an HttpBody."""
    if method.response.full_name == "google.api.HttpBody":
        return {"description": "OK", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    content_type = LINES if method.is_lines else "application/json"
    about = "OK; each line is one of these, a last one `error` with the problem that ended the stream"
    described = about if method.is_lines else "OK"
    return {"description": described, "content": {content_type: {"schema": schemas.message(method.response)}}}


def parameters_of(schemas: Schemas, method: Method, binding: Binding, template: Template) -> list[Schema]:
    """Return path, query and header parameters of an operation."""
    header = method.request.fields_by_name.get("header")
    holder = header.message_type if method.is_upload and header is not None else method.request
    found: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": segment_schema(holder, template, place)}
        for place, name in enumerate_names(template)
    ]
    if binding.body != "*" or method.is_lines:
        body = "lines" if method.is_lines else binding.body
        taken = frozenset({variable.field for variable in template.variables} | {body} | in_headers(method, binding))
        found.extend(query_parameters(schemas, method.request, taken, ""))
    timeout = "UploadTimeout" if method.is_upload else "LinesTimeout" if method.is_lines else "RequestTimeout"
    names = [timeout] if method.is_public else ["Purpose", timeout]
    carried = in_headers(method, binding)
    names += [name for field, name in (("request_id", "IdempotencyKey"), ("etag", "IfMatch")) if field in carried]
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in names]


def in_headers(method: Method, binding: Binding) -> frozenset[str]:
    """Return the fields that are told by a header, and so neither in the query nor in the body."""
    keeps_id = not method.is_read and not method.is_public and is_text(method.request, "request_id")
    takes_etag = binding.verb in ("PATCH", "DELETE") and etag_field(method.request, binding.body)
    return frozenset({"request_id"} if keeps_id else ()) | frozenset({"etag"} if takes_etag else ())


def query_parameters(
    schemas: Schemas, message: Descriptor, taken: frozenset[str], prefix: str, depth: int = 0
) -> Iterator[Schema]:
    """Yield a parameter per field that text can fill, nested ones with dots."""
    for field in message.fields:
        name = prefix + field.name
        if name in taken:
            continue
        if is_leaf(field):
            yield query_parameter(schemas, field, name)
        elif not field.is_repeated and depth < QUERY_DEPTH and field.message_type is not None:
            yield from query_parameters(schemas, field.message_type, taken, f"{name}.", depth + 1)


def query_parameter(schemas: Schemas, field: FieldDescriptor, name: str) -> Schema:
    """Return one query parameter."""
    schema = schemas.field(field)
    description = str(schema.pop("description", ""))
    found: Schema = {"name": name, "in": "query", "schema": schema, "description": description}
    if is_required(field):
        found["required"] = True
    return found


def body_of(schemas: Schemas, method: Method, binding: Binding, template: Template) -> Schema | None:
    """Return the request body of an operation, None when it takes none."""
    if method.is_upload:
        return upload_body(schemas, method, binding, template)
    if method.is_lines:
        about = schemas.comments.get(f"{method.request.full_name}.lines", "")
        return {"required": True, "content": {LINES: {"schema": {"type": "string", "description": about}}}}
    if not binding.body:
        return None
    given = frozenset(variable.field for variable in template.variables) | in_headers(method, binding)
    if binding.body == "*":
        schema = schemas.object_of(method.request, given)
    elif binding.verb == "PATCH":
        resource = method.request.fields_by_name[binding.body]
        placed = frozenset(name.removeprefix(f"{binding.body}.") for name in given)
        schema = schemas.object_of(resource.message_type, placed, is_change=True)
    else:
        schema = schemas.scalar(method.request.fields_by_name[binding.body])
    content: dict[str, Schema] = {"application/json": {"schema": schema}}
    if method.is_public:
        open_schema = {**schemas.resolved(schema), "additionalProperties": True}  # RFC 6749 §3.2, RFC 8058 §3.1
        content |= {form: {"schema": open_schema} for form in (URLENCODED, MULTIPART)}
    return {"required": _needs_something(schemas.resolved(schema)), "content": content}


def _needs_something(schema: Schema) -> bool:
    """Whether an empty object is refused: a field is required, or one of several."""
    rules = schema.get("allOf", ())
    return bool(schema.get("required")) or any("anyOf" in rule for rule in rules)  # type: ignore[attr-defined]


def upload_body(schemas: Schemas, method: Method, binding: Binding, template: Template) -> Schema:
    """Return the multipart body of an upload: the header's fields, then the file."""
    header = method.request.fields_by_name["header"].message_type
    given: Sequence[str] = [*(variable.field for variable in template.variables), *in_headers(method, binding)]
    schema = schemas.object_of(header, frozenset((*given, "file_name")))
    properties = schema["properties"]
    assert isinstance(properties, dict)
    file: Schema = {"type": "string", "format": "binary", "description": "The file; the form's last part."}
    schema["properties"] = {**properties, "file": file}
    schema["required"] = [*schema.get("required", []), "file"]  # type: ignore[misc]
    return {"required": True, "content": {MULTIPART: {"schema": schema}}}
