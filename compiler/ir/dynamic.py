def to_dynamic(function): return function
