"""The database itself keeps published definitions as they are; and the view of what is active."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# 23514 is check_violation: to a client, a refused change like that of any other constraint.
FUNCTION = """
CREATE FUNCTION keep_published_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'DRAFT' AND (
        NEW.status = 'DRAFT'
        OR NEW.id IS DISTINCT FROM OLD.id
        OR NEW.template_id IS DISTINCT FROM OLD.template_id
        OR NEW.version IS DISTINCT FROM OLD.version
        OR NEW.definition IS DISTINCT FROM OLD.definition
        OR NEW.definition_hash IS DISTINCT FROM OLD.definition_hash
        OR NEW.published_at IS DISTINCT FROM OLD.published_at
    ) THEN
        RAISE EXCEPTION 'version % is %: only a draft can be changed', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'tr_workflow_template_version_published_is_final';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGER = """
CREATE TRIGGER tr_workflow_template_version_published_is_final
BEFORE UPDATE ON workflow_template_version
FOR EACH ROW EXECUTE FUNCTION keep_published_version()
"""

VIEW = """
CREATE VIEW workflow_latest_json AS
SELECT
    template.id AS template_id,
    template.slug,
    template.name,
    template.status,
    version.id AS version_id,
    version.version,
    version.definition,
    version.definition_hash,
    version.published_at
FROM workflow_template AS template
JOIN workflow_template_version AS version ON version.id = template.active_version_id
"""


def upgrade() -> None:
    op.execute(FUNCTION)
    op.execute(TRIGGER)
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW workflow_latest_json")
    op.execute("DROP TRIGGER tr_workflow_template_version_published_is_final ON workflow_template_version")
    op.execute("DROP FUNCTION keep_published_version()")
