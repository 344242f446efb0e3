"""Chat templates in the manner of those that are published, written anew, and templates that no model needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HONEST: Final[Mapping[str, str]] = {
    "chatml": """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama 2": """\
{%- if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}
{%- else %}{% set rest = messages %}{% set system = false %}{% endif %}
{%- for message in rest %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{%- if loop.index0 == 0 and system != false %}
{%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{%- else %}{% set content = message['content'] %}{% endif %}
{%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}""",
    "llama 3 with tools": """\
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}
{%- if strftime_now is defined %}{% set date_string = strftime_now("%d %b %Y") %}
{%- else %}{% set date_string = "26 Jul 2024" %}{% endif %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
{%- set system_message = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system_message = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n" + system_message + "<|eot_id|>" }}
{%- if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}{{ "\\n\\n" }}{% endfor %}{% endif %}
{%- for message in messages %}
{%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}
{%- if not message.tool_calls | length == 1 %}{{ raise_exception("One tool call at once!") }}{% endif %}
{%- set tool_call = message.tool_calls[0].function %}
{{- tool_call.name + '(' }}
{%- for name, value in tool_call.arguments | items %}{{ name + '="' + value + '"' }}{% if not loop.last %}, {% endif %}
{%- endfor %}{{- ")" }}
{%- for name in tool_call.arguments %}{{ "%s" | format(tool_call.arguments[name]) }}{% endfor %}
{%- endif %}{% endfor %}""",
    "qwen 3": """\
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages | length - 1) %}
{%- for message in messages[::-1] %}
{%- set index = (messages | length - 1) - loop.index0 %}
{%- if ns.multi_step_tool and message.role == "user" and not (message.content.startswith('<tool_response>')) %}
{%- set ns.multi_step_tool = false %}{% set ns.last_query_index = index %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- set reasoning_content = '' %}{% set content = message.content %}
{%- if '</think>' in content %}
{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
{{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}
{%- elif messages[loop.index0 - 1].role != "tool" and not loop.last and loop.nextitem.role != "tool" %}{{ content }}
{%- endif %}{% endfor %}""",
    "mistral with tools": """\
{%- set today = strftime_now("%Y-%m-%d") %}
{%- set system = "The date is " + today + "." %}
{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- set kept = [] %}
{%- for message in messages if message["role"] not in ["tool", "tool_results"] and not message.get("tool_calls") %}
{%- set kept = kept + [message] %}{% endfor %}
{%- for message in messages %}
{%- if tools is not none and (message == user_messages[-1]) %}{{ "[AVAILABLE_TOOLS] [" }}
{%- for key, val in tools[0].function.items() if key != "return" %}
{{- '"' + key + '": ' + val | tojson if val is not string else '"' + key + '": "' + val + '"' }}{% endfor %}{% endif %}
{%- set out = message.tool_calls[0].function | tojson %}
{{- out[:-1] + ', "id": "' + message.tool_calls[0].id[-9:] + '"}' }}
{{- dict(call_id=message['tool_call_id'], content=message['content']) | tojson }}
{%- endfor %}{{ (tools | selectattr('type', 'eq', 'function') | map(attribute='function') | list | tojson) }}""",
    "gemma": """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}
{%- else %}{% set role = message['role'] %}{% endif %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}""",
    "phi 3": """\
{% for message in messages %}{% if message['role'] in ['user', 'system'] and message['content'] %}
{{ '<|' ~ message['role'] ~ '|>\\n' ~ message['content'] ~ '<|end|>\\n' }}{% endif %}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """\
{% set ns = namespace(is_first=false, is_tool=false, system_prompt='', tools=[], previous=-1) %}
{%- for message in messages %}{% if message.get('tools') %}
{%- for tool in message.tools %}{% set _ = ns.tools.append(tool.function) %}{% endfor %}{% endif %}
{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt + ('\\n' if ns.system_prompt else '')
    + message['content'] %}{% endif %}{% endfor %}
{{- '<｜begin▁of▁sentence｜>' ~ ns.system_prompt }}
{%- for message in messages %}
{%- for i in range(loop.index0 - 1, -1, -1) %}{% if messages[i].role != 'tool' and ns.previous == -1 %}
{%- set ns.previous = i %}{% endif %}{% endfor %}
{{- messages[ns.previous].content ~ '<｜tool▁calls▁begin｜>' + message.tool_calls[0]['function']['name'] + '\\n' }}
{%- endfor %}""",
    "schema to typescript": """\
{%- macro kind(schema, indent="", step=2, root=none) -%}
{%- set _root = schema if root is none else root -%}
{%- set ns = namespace(parts=[], at=_root) -%}
{%- for raw in schema.get('$ref', '')[2:].split('/') -%}
{%- set part = raw | replace('~1', '/') | replace('~0', '~') -%}
{%- if part in ns.at -%}{% set ns.at = ns.at[part] %}{%- else -%}{% set ns.at = ns.at[part | int] %}{%- endif -%}
{%- endfor -%}
{%- for key, value in schema.properties.items() | list -%}
{%- set ns.parts = ns.parts + [indent + key + ': ' ~ kind(value, indent + (' ' * step), step, _root)] -%}
{%- endfor -%}
{%- if schema.type | upper == 'ARRAY' -%}{{ kind({'type': 'string', 'enum': schema.enum}, indent) }}{%- endif -%}
{{- ns.parts | join(' | ') -}}
{%- endmacro -%}
{%- macro turn(message) -%}{%- for f in message.files[::-1] -%}{{ marks[f.type] }}{%- endfor -%}{%- endmacro -%}
{%- set marks = namespace(image="[image_token]", audio="[audio_token]") -%}
{%- set said = 'developer_system: ' ~ kind(tools[0]) -%}
{{- turn({'role': 'developer system', 'content': said}) -}}{{ bos_token ~ turn(messages[0]) }}""",
    "spans of the assistant, with loop controls": """\
{%- for message in messages %}{% if message.role == 'stop' %}{% break %}{% elif not message.content %}{% continue %}
{%- endif %}{% generation %}{{ message.content ~ eos_token }}{% endgeneration %}{% endfor %}""",
    "budgets by size": """\
{%- set budgets = {0: 0, 512: 128, 131072: 1024} -%}
{%- for size, budget in budgets | dictsort -%}{% if thinking_budget <= size %}{{ budget }}{% endif %}{%- endfor -%}
{{- budgets[131072] }}""",
    "nothing": "",
    "text": "{# a comment #}You are __init__ and __class__.",
}

HOSTILE: Final[Mapping[str, str]] = {
    "attribute": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "attribute of an object": "{{ cycler.init }}",
    "self": "{{ self }}",
    "item": "{{ messages['__class__'] }}",
    "private item": "{{ messages[0]['_secret'] }}",
    "joined name": "{{ messages['__cla' ~ 'ss__'] }}",
    "joined of single ones": "{% set u = '_' %}{{ messages[u ~ u ~ 'class' ~ u ~ u] }}",
    "added": "{% set a = '_' %}{% set b = 'class' %}{{ messages[a + a + b + a + a] }}",
    "multiplied": "{{ messages['_' * 2 ~ 'x'] }}",
    "a letter of a word": "{% set u = 'tool_calls'[4] %}{{ messages[u + u + 'class'] }}",
    "reversed": "{{ messages['x_' | reverse] }}",
    "sliced": "{{ messages['ssalc__'[::-1]] }}",
    "formatted": "{{ messages['%c%c' % (95, 95)] }}",
    "format filter": "{{ messages['%c' | format(95)] }}",
    "replaced": "{{ messages['xxclassxx' | replace('x', '_')] }}",
    "replaced by method": "{{ messages['xxclassxx'.replace('x', '_')] }}",
    "joined list": "{{ messages[['_', '_', 'x'] | join] }}",
    "in a namespace": "{% set ns = namespace(k='_') %}{% set ns.k = ns.k ~ 'x' %}{{ messages[ns.k] }}",
    "in a dictionary": "{% set d = {'k': '_' ~ 'x'} %}{{ messages[d.k] }}",
    "values of a dictionary": "{% set d = {'k': '_' ~ 'x'} %}{% for v in d.values() %}{{ messages[v] }}{% endfor %}",
    "by a macro": "{% macro m(o, k) %}{{ o[k] }}{% endmacro %}{{ m(messages, '_' ~ 'x') }}",
    "by a keyword of a macro": "{% macro m(o, k='') %}{{ o[k] }}{% endmacro %}{{ m(messages, k='_' ~ 'x') }}",
    "from a macro": "{% macro u() %}_{% endmacro %}{{ messages[u() ~ 'x'] }}",
    "from a block": "{% set u %}_{{ x }}{% endset %}{{ messages[u] }}",
    "in a loop": "{% for u in ['_'] %}{{ messages[u ~ 'x'] }}{% endfor %}",
    "by with": "{% with u = '_' %}{{ messages[u ~ 'x'] }}{% endwith %}",
    "by a caller": "{% macro m() %}{{ caller('_' ~ 'x') }}{% endmacro %}{% call(k) m() %}{{ o[k] }}{% endcall %}",
    "a special token": "{{ messages[bos_token] }}",
    "defined late": "{% for i in [1, 2] %}{{ messages[k] }}{% set k = j %}{% set j = '_' ~ 'x' %}{% endfor %}",
    "attr filter": "{{ messages | attr('x') }}",
    "attr by map": "{{ messages | map('attr', 'x') | list }}",
    "attribute by map": "{{ messages | map(attribute='a.__class__') | list }}",
    "private attribute by map": "{{ messages | map(attribute='_x') | list }}",
    "built attribute by map": "{{ messages | map(attribute=name) | list }}",
    "attribute by selectattr": "{{ messages | selectattr('_x') | list }}",
    "attribute by sort": "{{ messages | sort(attribute='_x') }}",
    "attribute by sum": "{{ messages | sum('_x') }}",
    "attribute by join": "{{ messages | join(',', '_x') }}",
    "attribute by groupby": "{{ messages | groupby('_x') }}",
    "half a name": "{% set x = '__globals__' %}",
    "format method": "{{ '{0.x}'.format(messages) }}",
    "format_map": "{{ '{a.x}'.format_map(messages) }}",
    "unknown method": "{{ messages.mro() }}",
    "unknown function": "{{ open('/etc/passwd') }}",
    "known object": "{{ lipsum() }}",
    "a call of a call": "{{ messages.get('f')() }}",
    "a call of an item": "{{ messages['f']() }}",
    "unwritten arguments": "{{ raise_exception(*messages) }}",
    "a printed function": "{{ (namespace | string)[9] }}",
    "a printed macro": "{% macro a_b() %}{% endmacro %}{{ (a_b ~ '')[8] }}",
    "function's attribute": "{{ range.x }}",
    "private namespace": "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "include": "{% include 'x' %}",
    "extends": "{% extends 'x' %}",
    "long range": "{% for i in range(100001) %}{% endfor %}",
    "large number": "{{ ' ' | center(1000001) }}",
    "power": "{{ 9 ** 9 }}",
    "long repetition": "{{ 'x' * 10001 }}",
    "repeated text": "{% set x = 'x' ~ y %}{{ x * n }}",
    "doubling": "{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by a list": "{% for i in range(40) %}{% set x = [x, x] %}{% endfor %}",
    "growing factor": "{% for i in range(40) %}{% set x = x * 2 %}{% endfor %}",
    "wide format": "{{ '%99999d' % 1 }}",
    "wide format filter": "{{ '%99999d' | format(1) }}",
    "starred format": "{{ '%*d' | format(9999, 1) }}",
    "unknown filter": "{{ messages | pprint }}",
    "do": "{% do messages.append(1) %}",
    "broken": "{{ broken",
    "unknown tag": "{% exec %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long sum": "{{ " + " + ".join(["a"] * 20_000) + " }}",
    "long chain": "".join(f"{{% set a{i} = a{i + 1} %}}" for i in range(50)) + "{% set a50 = '_' %}",
    "large": "x" * 300_000,
}
