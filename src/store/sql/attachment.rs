//! The rows of files that are named with messages.

use std::collections::HashMap;

use sqlx::QueryBuilder;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Connection, Db, Ids, Time, row};
use crate::domain::{Attachment, AttachmentId, MessageId, NewAttachment, Timestamp};

/// Gives new files their ids, in their order. Refuses what one of the databases cannot hold.
pub(super) fn named(files: &[NewAttachment]) -> sqlx::Result<Vec<Attachment>> {
    let name = |file: &NewAttachment| {
        row::storable(&file.file_name)?;
        row::storable(&file.file_url)?;
        row::storable(&file.mime_type)?;
        row::storable_object(&file.metadata)?;
        let NewAttachment { file_name, file_url, mime_type, file_size, metadata } = file.clone();
        let id = AttachmentId::new();
        Ok(Attachment { id, file_name, file_url, mime_type, file_size, metadata })
    };
    files.iter().map(name).collect()
}

/// Stores a message's new files: one statement for all, none where there are none.
pub(super) async fn insert(
    connection: &mut Connection,
    message: MessageId,
    files: &[Attachment],
    at: Timestamp,
) -> sqlx::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut statement: QueryBuilder<Db> = QueryBuilder::new(
        "INSERT INTO message_attachment (id, message_id, file_name, file_url, mime_type, \
         file_size, metadata, created_at) ",
    );
    statement.push_values(files, |mut values, file| {
        values
            .push_bind(file.id.0)
            .push_bind(message.0)
            .push_bind(file.file_name.as_str())
            .push_bind(file.file_url.as_str())
            .push_bind(file.mime_type.as_str())
            .push_bind(row::signed(file.file_size))
            .push_bind(Json(&file.metadata))
            .push_bind(Time::from(at));
    });
    statement.build().execute(connection).await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct AttachmentRow {
    id: Uuid,
    message_id: Uuid,
    file_name: String,
    file_url: String,
    mime_type: String,
    file_size: i64,
    metadata: Json<row::Object>,
}

/// The files of messages, in the order in which they were named.
pub(super) async fn of(
    connection: &mut Connection,
    messages: Ids,
) -> sqlx::Result<HashMap<Uuid, Vec<Attachment>>> {
    let rows: Vec<AttachmentRow> = sqlx::query_as(concat!(
        "SELECT id, message_id, file_name, file_url, mime_type, file_size, metadata \
         FROM message_attachment WHERE message_id IN (",
        ids!("$1"),
        ") ORDER BY created_at, id",
    ))
    .bind(messages)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<Uuid, Vec<Attachment>> = HashMap::new();
    for row in rows {
        found.entry(row.message_id).or_default().push(Attachment {
            id: AttachmentId(row.id),
            file_name: row.file_name,
            file_url: row.file_url,
            mime_type: row.mime_type,
            file_size: row::unsigned(row.file_size)?,
            metadata: row.metadata.0,
        });
    }
    Ok(found)
}
