"""Implement the verbs, one module each; `stl_deploy.verbs` gathers the functions under the verbs' names."""
